-- Returns the versions in a table of applied migrations; {history} is its name.

select version
from {history}

-- Adds the accounts that public.users lacks, corrects its email addresses, and returns the number of both.

select billing.copy_accounts() as copied

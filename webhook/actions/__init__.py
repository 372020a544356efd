"""What operators do: adjust, assign, discard, retry. The commands print the results, and the console renders them."""

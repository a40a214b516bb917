"""Results: what an evaluation found, by what a row of it is recognised, and the file of rows."""

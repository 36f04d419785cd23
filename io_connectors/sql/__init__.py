"""What the sinks of SQL databases share: all but the step that loads rows into the staging table.

A batch is written in one transaction: load it into a staging table, remove duplicates there, MERGE it into the table by
`transaction_id`, and record it in a ledger, `<table>_batches`.
"""

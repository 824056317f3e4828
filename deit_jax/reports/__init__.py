"""What people look at: curves, tables, reports."""

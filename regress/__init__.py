"""The regression stage: cached features in, heads, tables and figures out."""

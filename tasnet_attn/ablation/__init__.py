"""`tasnet-attn ablate`: the sweep file, the runner and its workers, statistics, tables, figures."""

"""What `tasnet-attn ablate` is made of: the sweep file, the runner and its workers, statistics, tables, figures."""

"""What `elman bench` and `elman accuracy` do: how fast and how exact every backend and every installed peer is here.

`workloads` says what is computed, on which shapes; `contestants` is who computes it, each as a `program`; `truth` is
what is right; `measure` checks and times them in turn; `machine` measures what this machine could do at best; `report`
shows it all, and `compare` what became slower since.
"""

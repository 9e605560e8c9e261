"""What `elman bench` and `elman accuracy` do: how fast and how exact every backend and every installed peer is here.

`workloads` says what is computed, on which shapes; `peers` is who computes it; `measure` checks and times them in turn;
`machine` measures what this machine could do at best; `report` shows it all. Imported only on request.
"""

"""For launchers that start modules: `torchrun --nproc-per-node 8 -m eval.cli run ...`."""

from eval.cli import main

main()

"""One queue of image groups, and the workers that take from it: here, torchrun, Slurm, Ray."""

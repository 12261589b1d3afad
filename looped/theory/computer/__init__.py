"""A computer in one looped layer: machines, an assembler, and the execution of programs."""

"""The instructions that the assembler builds from those of a machine, as macros of its own language."""

COMMON = """
macro subleq A B
    sub A B
end
macro subleq A B L
    sub A B L
end
macro zero A
    sub A A
end
macro jump L
    sub .zero .zero L
end
macro halt
here: jump here
end
macro jump-if-<=0 A L
    sub .zero A L
end
"""
OF_FOUR = """
macro jump-if->=0 A L
    compare A .zero L
end
"""
# The cell .zero is 0 except inside a macro. An instruction without a target continues at the next one.
OF_SUBLEQ = """
macro jump-if->=0 A L
    sub A .zero yes
    jump no
yes: jump L
no:
end
macro add A B
    sub A .zero
    sub .zero B
    zero .zero
end
macro move A B
    sub A .zero
    zero B
    sub .zero B
    zero .zero
end
macro add A B L
    add A B
    jump-if-<=0 B L
end
macro move A B L
    move A B
    jump-if-<=0 B L
end
macro compare A B L
    zero .result
    sub B .zero
    sub .zero .result
    zero .zero
    sub A .result L
end
"""
MACROS = {"subleq": COMMON + OF_SUBLEQ, "four": COMMON + OF_FOUR, "self-modifying": COMMON + OF_SUBLEQ}
"""By kind of machine."""

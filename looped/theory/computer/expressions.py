"""Expressions on whole numbers, such as 3 + 4 * (5 - 2), as programs in the assembler's language."""

import ast

MULTIPLY = """\
cell minus
cell count

macro multiply x y product      ; repeated addition, for any signs
        zero product
        zero minus
        zero count
        jump-if->=0 y positive
        add x minus             ; y is negative: -x is subtracted from the product -y times
        sub y count
        jump start
positive:
        sub x minus
        add y count
start:  sub -1 count
loop:   sub 1 count done
        sub minus product
        jump loop
done:
end
"""


def compile_expression(text: str) -> str:
    """A program that computes the expression into the cell `result`.

    Raises:
        ValueError: something other than whole numbers, +, -, * and parentheses.
    """
    expected = "expected whole numbers, +, -, * and parentheses"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"expression {text!r}: {expected}") from None
    cells: list[str] = []
    code: list[str] = []

    def emit(node: ast.expr) -> str:
        """The cell, or the constant, with the value of this part."""
        match node:
            case ast.Constant(value=int(value)) if type(value) is int:
                return str(value)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=inner):
                operand = emit(inner)
                return new(operand, "add" if isinstance(sign, ast.UAdd) else "sub")
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
                target = new(emit(left), "add")
                code.append(f"{'add' if isinstance(sign, ast.Add) else 'sub'} {emit(right)} {target}")
                return target
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                factors = emit(left), emit(right)
                cells.append(f"t{len(cells)}")
                code.append(f"multiply {factors[0]} {factors[1]} {cells[-1]}")
                return cells[-1]
        raise ValueError(f"expression {text!r}: {ast.unparse(node)!r}: {expected}")

    def new(operand: str, operation: str) -> str:
        cells.append(f"t{len(cells)}")
        code.append(f"{operation} {operand} {cells[-1]}")
        return cells[-1]

    code.append(f"move {emit(tree)} result")
    body = "".join(f"        {line}\n" for line in [*code, "halt"])
    return "".join(f"cell {name}\n" for name in cells) + f"output result\n{MULTIPLY}\n{body}"

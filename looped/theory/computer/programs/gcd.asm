; divisor = the greatest common divisor of two positive numbers (Euclid, by subtraction)
input a 84
input b 36
output divisor

loop:   compare b a smaller     ; to `smaller` if a - b <= 0
        sub b a
        jump loop
smaller:
        compare a b equal       ; to `equal` if b - a <= 0 too
        sub a b
        jump loop
equal:  move a divisor
        halt

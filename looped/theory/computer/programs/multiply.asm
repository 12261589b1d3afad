; product = x * y, for y >= 0, by repeated addition
input x 6
input y 7
output product

loop:   jump-if-<=0 y done
        add x product
        sub 1 y
        jump loop
done:   halt

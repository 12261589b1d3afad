; c = a b for 2 x 2 matrices, row by row
input a 1 2 3 4
input b 5 6 7 8
output c 4*0
cell minus
cell count

macro add-product x y sum       ; sum += x y
        zero minus
        zero count
        jump-if->=0 y positive
        add x minus
        sub y count
        jump loop
positive:
        sub x minus
        add y count
loop:   sub -1 count
again:  sub 1 count done
        sub minus sum
        jump again
done:
end

        add-product a+0 b+0 c+0
        add-product a+1 b+2 c+0
        add-product a+0 b+1 c+1
        add-product a+1 b+3 c+1
        add-product a+2 b+0 c+2
        add-product a+3 b+2 c+2
        add-product a+2 b+1 c+3
        add-product a+3 b+3 c+3
        halt

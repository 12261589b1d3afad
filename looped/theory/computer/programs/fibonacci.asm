; a = the n-th number of 0, 1, 1, 2, 3, 5, 8, ...
input n 10
output a 0
cell b 1
cell sum

loop:   jump-if-<=0 n done
        move a sum
        add b sum
        move b a
        move sum b
        sub 1 n
        jump loop
done:   halt

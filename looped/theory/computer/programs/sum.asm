; total = the sum of an array. The program rewrites its own operand: it needs one memory.
machine self-modifying

input array 3 1 4 1 5 9 2 6
cell left 8
cell minus
output total

read:   sub array minus         ; its first word is the address of the next number
        sub -1 read+0
        sub 1 left done
        jump read
done:   sub minus total
        halt

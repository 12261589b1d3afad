; A computer inside a computer inside a transformer: this program interprets the program in `inner`, which multiplies.
; It rewrites the addresses in its own instructions, and therefore needs one memory.
machine self-modifying

input x 6
input y 7
output product
cell minus_x
cell one 1
cell nothing
; product -= -x
; y -= 1, and stop if y <= 0; here a target of 0 ends the program
; jump to the first instruction
cell inner @minus_x @product @inner+3  @one @y 0  @nothing @nothing @inner+0
cell minus
cell target

        sub x minus_x

first:  sub inner+0 .zero       ; the first word of the inner instruction ...
        zero do+0
        sub .zero do+0          ; ... becomes the first word of the instruction `do`
        zero .zero
second: sub inner+1 .zero
        zero do+1
        sub .zero do+1
        zero .zero
do:     sub one one third       ; both words are replaced before it runs
        sub -3 first+0          ; next inner instruction
        sub -3 second+0
        sub -3 third+0
        jump first
third:  sub inner+2 minus
        zero target
        sub minus target ended  ; target = the third word
        zero first+0
        sub minus first+0
        zero second+0
        sub minus second+0
        sub -1 second+0
        zero third+0
        sub minus third+0
        sub -2 third+0
        zero minus
        jump first
ended:  halt

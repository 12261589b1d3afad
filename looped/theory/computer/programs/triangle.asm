; draws Pascal's triangle modulo 2. A pixel is set if exactly one of two pixels of the row above is set.
; The program rewrites the addresses in its own instructions: it needs one memory.
machine self-modifying

picture screen 9 0 1 70*0
cell left 62
cell both

loop:   zero both
above:  sub screen+1 both
other:  sub screen+0 both       ; both is 0, -1 or -2
        sub -1 both one         ; 1, 0 or -1
        jump next
one:    sub -1 both next        ; 1 if exactly one was set
write:  sub -1 screen+10
next:   sub -1 above+0
        sub -1 other+0
        sub -1 write+1
        sub 1 left done
        jump loop
done:   halt

; sorts six numbers: bubble sort, which ends after a pass without exchanges
output a 6*0
input numbers 5 2 9 -3 7 2
cell copy
cell exchanged

macro order x y
        compare y x sorted      ; x - y <= 0
        move x copy
        move y x
        move copy y
        move 1 exchanged
sorted:
end

        move numbers+0 a+0
        move numbers+1 a+1
        move numbers+2 a+2
        move numbers+3 a+3
        move numbers+4 a+4
        move numbers+5 a+5
pass:   zero exchanged
        order a+0 a+1
        order a+1 a+2
        order a+2 a+3
        order a+3 a+4
        order a+4 a+5
        jump-if-<=0 exchanged done
        jump pass
done:   halt

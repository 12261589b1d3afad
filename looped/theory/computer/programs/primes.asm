; count = how many primes are at most `limit`; largest = the largest of them (trial division by repeated subtraction)
input limit 30
output count
output largest
cell n 1
cell divisor
cell rest

next:   add 1 n
        compare limit n test    ; while n - limit <= 0
        halt
test:   move 1 divisor
again:  add 1 divisor
        compare n divisor divide
        jump prime
divide: compare divisor n prime ; n - divisor <= 0: no smaller divisor was found
        move n rest
minus:  sub divisor rest ended
        jump minus
ended:  jump-if->=0 rest next   ; rest = 0: n has a divisor
        jump again
prime:  add 1 count
        move n largest
        jump next

task="--task.length 8 --task.eval-lengths 4 6 10 12 16 20 30 40"
letters="--task.min-letters 3 --task.max-letters 3 --task.letter-pool 3"
looped train edit-distance-small $task --model.positions rotary --train.device cpu --out runs/lengths/looped
looped train edit-distance-small-timestep $task --model.positions rotary --train.device cpu --out runs/lengths/timestep
looped construct edit-distance $task $letters --out runs/lengths/constructed
looped evaluate runs/lengths/looped --loops 1 2 4 6 8 12 16 32
looped evaluate runs/lengths/timestep --loops 1 2 4 6 8 12 16 32
looped evaluate runs/lengths/constructed --loops 1 2 4 8 12 16 20 24 32 42 64 84 100
looped report runs/lengths --out results/constructions/edit-distance/lengths

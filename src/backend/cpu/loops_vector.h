/* The loops as an instruction set's compiler vectorises them; a file that includes this defines NITI_LOOPS, its table's name. */
#include "backend/cpu/loops_largest.h"
#include "backend/cpu/loops_norm.h"
#include "backend/cpu/loops_sgd.h"

const NitiLoops NITI_LOOPS = {.largest16 = largest16,
                              .largest32 = largest32,
                              .largest64 = largest64,
                              .spread16 = spread16,
                              .squares32 = squares32,
                              .squares64 = squares64,
                              .update = update_fraction,
                              .sums = sums,
                              .delta_sums = delta_sums,
                              .affine = affine,
                              .affine_delta = affine_delta,
                              .sgd = sgd};

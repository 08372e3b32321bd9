/* A pass that moves updates forward in a training program, so that gradients need not all be in memory at once. */
#ifndef NITI_PROGRAM_EARLY_H
#define NITI_PROGRAM_EARLY_H

#include "program/program.h"

/* Moves each update among the operations of backward: behind the last that writes what it reads or reads what it writes, and from
 * there on to the next place where those that wait have an eighth of all gradients' bytes, and `least` of them, since a backend
 * runs updates in a row together. The results are the same. The program afterwards has updates between operations of phase
 * backward. Leaves it alone where gradients are exchanged or looked at beforehand (sums over ranks, clipping by norm). Fails with
 * NITI_ERROR_MEMORY only.
 */
NitiStatus niti_update_early(NitiProgram *, size_t least);

#endif

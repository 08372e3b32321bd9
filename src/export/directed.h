/* Directed cases of every operation: small programs whose operands are chosen. */
#ifndef NITI_EXPORT_DIRECTED_H
#define NITI_EXPORT_DIRECTED_H

#include "export/record.h"

/* Runs every operation of a few small networks, between them every opcode, on each set of operands: nothing but zeros, nothing
 * but the largest mantissas, only the least, both by turns, all mantissas, a single one, small ones, channels of one value
 * between others. Writes those that --operations wants. */
NitiStatus niti_directed_write(NitiRecord *r);

#endif

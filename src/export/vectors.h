/* Vectors for hardware designers: operands, sums and results of the operations of training steps, and directed cases of the
 * arithmetic. */
#ifndef NITI_EXPORT_VECTORS_H
#define NITI_EXPORT_VECTORS_H

#include <stdint.h>

#include "platform/status.h"

typedef struct NitiVectorOptions {
  const char *out;        /* a new or empty folder */
  const char *operations; /* words, separated by commas, one of which an operation's name must contain; a word that no name
                             contains is refused; NULL: all */
  const char *formats;    /* "npy,hex,h,safetensors" or some of them; NULL: npy */
  int32_t steps, batch;   /* batch 0: the recipe's */
} NitiVectorOptions;

/* Trains `steps` steps of a network, from where its checkpoint stands (niti_device_start), its rate following the schedule, on
 * images of random bytes (word INDEX >> 24 of purpose 64, time STEP; label: the word of purpose 65, times the classes, >> 32),
 * and writes a file for each tensor that an operation reads or makes, with index.json. *count: operations written. Statuses:
 * ARGUMENT, FILE, FORMAT, MODEL, UNSUPPORTED (also a step whose mu is not whole), MEMORY, DEVICE. */
NitiStatus niti_vectors_write(int64_t *count, const char *network, const NitiVectorOptions *options);
/* Writes directed cases: every rounding mode at shifts 0 to 24, with ties, both ends of the range and what clips; updates with b
 * = 0, s < 1 and s = 1; additions at every alignment; the longest sums; and every opcode of the program's table (`none` alone
 * does nothing) on operands that are zeros, the largest and the least mantissas, both by turns, all of them, a single one, and
 * small ones. `steps` and `batch` do not count. */
NitiStatus niti_vectors_corners(int64_t *count, const NitiVectorOptions *options);

/* Where two things differ first. */
typedef struct NitiDifference {
  bool differs;
  char where[512]; /* one line, escaped (niti_text_escape, reversible); "": they are equal, or could not be compared */
} NitiDifference;

/* Compares two folders of vectors (the first file whose content differs, and its first element), or two runs' folders: by
 * bisection over the epochs that both kept (--save-every), the first whose weights differ, with the first tensor and element. */
NitiStatus niti_compare(NitiDifference *out, const char *a, const char *b);

#endif

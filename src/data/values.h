/* Inside src/data: values of int8 and int16, and what becomes of them. */
#ifndef NITI_DATA_VALUES_H
#define NITI_DATA_VALUES_H

#include "data/format.h"
#include "data/image.h"

/* Adds the values of `count` stored samples from `first` on, [H][W][C] each, to sums[C]. Any type. */
void niti_values_sum(NitiSums *sums, const NitiDataset *dataset, const NitiDataSplit *split, int64_t first, int64_t count);
/* One stored sample of int8 or int16 as mantissas out [H][W][C], size {1, H, W, C}, at NITI_VALUE_EXPONENT: the window of
 * the sample padded with `pad` zeros, normalised by the options' mean and std (docs/arithmetic.md). Fails where it has to be
 * read and cannot be. */
NitiStatus niti_values_window(int8_t *out, const NitiDataset *dataset, const NitiDataSplit *split, int64_t place,
                              const NitiDataOptions *options, NitiShape size, NitiWindow window);
/* Full scale, the unit of mean and std: 255, 128 or 32768. */
int32_t niti_values_full(NitiDataType type);

#endif

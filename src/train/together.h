/* What the ranks of a run tell each other before, between and after its steps (ranks/ranks.h, docs/scaling.md). All ranks call
 * each of these at the same point of a run; in a process by itself they exchange nothing. */
#ifndef NITI_TRAIN_TOGETHER_H
#define NITI_TRAIN_TOGETHER_H

#include "train/run.h"

/* The data set's statistics: each rank sums a part of the images, but those of image folders are decoded by rank 0. */
NitiStatus niti_together_statistics(NitiRun *run, int32_t mean[NITI_CHANNELS_MAX], int32_t std[NITI_CHANNELS_MAX]);
/* Sets run->inputs.sha256 of these splits (NITI_SPLIT_BIT), computed once where ranks of a host have the same files
 * (niti_dataset_files), of different splits by different ranks. */
NitiStatus niti_together_hash(NitiRun *run, unsigned splits);
/* Fails, naming two ranks, where not all have the same niti, make the same call and have the same options: before anything else,
 * since what the ranks exchange depends on them. */
NitiStatus niti_together_begin(const NitiRun *run, const char *call);
/* The same of the recipe and the model. */
NitiStatus niti_together_check(const NitiRun *run);
/* The same of the data and the names of its classes, whose hashes are known by then. */
NitiStatus niti_together_check_data(const NitiRun *run);
/* Every rank receives the checks of images that stay in files (niti_dataset_checks) from one that has hashed them: behind the
 * former. */
NitiStatus niti_together_share_checks(const NitiRun *run);
/* Every rank receives rank 0's weights and optimiser's state. */
NitiStatus niti_together_weights(const NitiRun *run);
/* Every rank receives the checkpoint file that rank 0 has loaded; *checkpoint is NULL on the others. */
NitiStatus niti_together_checkpoint(NitiCheckpoint **checkpoint, NitiRanks *ranks);
/* Whether something is so on rank 0. */
NitiStatus niti_together_told(const NitiRun *run, bool *truth);
/* The counts of all ranks. */
void niti_together_confusion(const NitiRun *run);
/* On rank 0, if ranks have taken much longer than the fastest one for their steps since the last call, and none was named
 * before, a line that names them in text[NITI_RANK_TEXT_MAX], else "". */
NitiStatus niti_together_pace(NitiRun *run, char *text);
/* The line itself, of paces[count]; "" where no rank is slow. */
void niti_together_name_slow(char *text, size_t size, const NitiRanks *ranks, const NitiPace *paces, int count);

#endif

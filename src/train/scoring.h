/* Scores a run's weights on its splits: after epochs, and the test split once at the end of a run with validation images. */
#ifndef NITI_TRAIN_SCORING_H
#define NITI_TRAIN_SCORING_H

#include "train/run.h"

/* Told after every batch: the batches done of this pass. Returns whether to go on. */
typedef bool (*NitiScoreTell)(const NitiRun *run, int64_t done, int64_t batches);

/* The split that is scored after epochs and chooses the best one. */
NitiSplit niti_run_scored_split(const NitiRun *run);
/* Its score in the last epoch that was scored. */
NitiScore *niti_run_scored(NitiRun *run);
/* Whether an epoch, from 1, is scored: every run->test_every'th, and where the run ends. */
bool niti_run_scores(const NitiRun *run, int32_t epoch);
/* Scores that split, and sets the facts about the layers' inputs. *go_on false: `tell` or the data's watch asked to stop; then
 * the scores are as before. */
NitiStatus niti_run_score(NitiRun *run, NitiScoreTell tell, bool *go_on);
/* At the end of a run with validation images: scores the final weights and those of best.safetensors on the test split. The
 * latter have no images where that file does not hold them. The network keeps the final weights. */
NitiStatus niti_run_score_end(NitiRun *run, NitiScoreTell tell, bool *go_on);
/* At the end of a run with `average`: sets the averaged weights, estimates their running statistics, scores them on the splits
 * on which the final weights were scored, and writes averaged.safetensors. The network keeps the final weights. */
NitiStatus niti_run_score_averaged(NitiRun *run, NitiScoreTell tell, bool *go_on);
/* The expected nanoseconds to the end of the epoch and of the run, testing included; -1: no step has been timed yet. */
void niti_run_expect(const NitiRun *run, int64_t *epoch_left, int64_t *run_left);

#endif

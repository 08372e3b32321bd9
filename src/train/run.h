/* A run at work: what it holds, how that is opened, and how it is saved and found again. trainer.c drives it. */
#ifndef NITI_TRAIN_RUN_H
#define NITI_TRAIN_RUN_H

#include "io/checkpoint.h"
#include "train/recipe.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/saver.h"
#include "train/step.h"

typedef struct NitiRun {
  NitiTrainOptions options;
  NitiRecipe *recipe; /* its own, resolved for the data set */
  char *data_path;
  char data_hash[2][65]; /* SHA-256 of each split's files */
  bool data_changed;     /* resumed: image files are not those that the run began with */
  NitiDataset *dataset;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiLoader *train_loader, *test_loader;
  NitiTensorStats *inputs; /* of each weight's layer, in the last test batch */
  NitiRunFolder *folder;
  NitiReport *report;
  NitiSaver *saver; /* made by the first save */
  int64_t steps_per_epoch, steps;
  int64_t step;       /* done */
  int64_t first_step; /* where this process began */
  int32_t epoch;      /* completed */
  int32_t save_every;
  bool complete; /* every step is done, tested and recorded */
  NitiScore train, test, best;
  int32_t best_epoch;
  int64_t images, nanoseconds;             /* trained by this process */
  int64_t epoch_images, epoch_nanoseconds; /* of them, in the epoch under way */
  int64_t saved_at, refreshed_at;
} NitiRun;

/* Opens the data set at data_path (NULL: the default), the loaders, the backend and the network for run->recipe, which gets the
 * data set's own statistics where it has none. On failure the caller closes the run as well. */
NitiStatus niti_run_open(NitiRun *run, const char *data_path);
/* Closes whatever is open. */
NitiStatus niti_run_close(NitiRun *run);

/* Saves the state as the folder's last checkpoint, and first under the other names asked for (NitiKeep). The state is taken now;
 * it is written in the background, and a failure of that is told by the next save or by niti_run_saved. */
NitiStatus niti_run_save(NitiRun *run, int keep);
/* Waits until what was saved is written. */
NitiStatus niti_run_saved(NitiRun *run);
/* Opens a run as the checkpoint has it. run_path is for messages; data_path NULL: the checkpoint's. */
NitiStatus niti_run_restore(NitiRun *run, const NitiCheckpoint *checkpoint, const char *run_path, const char *data_path);

#endif

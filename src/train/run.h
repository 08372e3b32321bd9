/* A run at work: what it holds, how that is opened, and how it is saved and found again. trainer.c drives it. */
#ifndef NITI_TRAIN_RUN_H
#define NITI_TRAIN_RUN_H

#include "io/checkpoint.h"
#include "train/recipe.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/saver.h"
#include "train/step.h"

/* What a run is trained from, as its checkpoints have it. The texts are borrowed. */
typedef struct NitiRunInputs {
  const char *model, *recipe; /* resolved */
  const char *data;           /* the data set's path */
  const char *classes;        /* their names, a line each; NULL: they are numbers */
  const char *labels;         /* what people are shown in place of the names, a line each; NULL: the names */
  uint64_t seed;
  int64_t images[2];        /* of each split */
  char sha256[2][65];       /* of each split's files */
  char names_sha256[2][65]; /* of their names; "": a checkpoint from before it had them */
} NitiRunInputs;

typedef struct NitiRun {
  NitiTrainOptions options;
  NitiRunInputs inputs;
  NitiRecipe *recipe; /* its own, resolved for the data set */
  char *data_path, *class_names, *class_labels;
  bool data_changed; /* resumed: image files are not those that the run began with */
  NitiDataset *dataset;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiLoader *train_loader, *test_loader;
  NitiTensorStats *layer_inputs; /* of each weight's layer, in the last test batch */
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
 * data set's own statistics where it has none; sets run->inputs. On failure the caller closes the run as well. */
NitiStatus niti_run_open(NitiRun *run, const char *data_path);
/* Closes whatever is open. */
NitiStatus niti_run_close(NitiRun *run);

/* Saves the state as the folder's last checkpoint, and first under the other names asked for (NitiKeep). The state is taken now;
 * it is written in the background, and the next save or niti_run_saved returns a failure of that. */
NitiStatus niti_run_save(NitiRun *run, int keep);
/* Waits until what was saved is written. */
NitiStatus niti_run_saved(NitiRun *run);
/* Opens a run as the checkpoint has it; data_path NULL: the checkpoint's. A key or tensor of the state that is missing, unknown
 * or malformed is NITI_ERROR_FORMAT with its name. */
NitiStatus niti_run_restore(NitiRun *run, const NitiCheckpoint *checkpoint, const char *data_path);

#endif

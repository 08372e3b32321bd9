/* The state of a run in progress, and how it is opened, saved and restored. trainer.c drives it. */
#ifndef NITI_TRAIN_RUN_H
#define NITI_TRAIN_RUN_H

#include "io/checkpoint.h"
#include "train/confusion.h"
#include "train/health.h"
#include "train/recipe.h"
#include "train/report.h"
#include "train/run_folder.h"
#include "train/saver.h"
#include "train/step.h"

/* What a run is trained from, as recorded in its checkpoints. The texts are borrowed. */
typedef struct NitiRunInputs {
  const char *model, *recipe; /* resolved */
  const char *data;           /* the data set's path */
  const char *classes;        /* their names, one per line; NULL: they are numbers */
  const char *labels;         /* their display names, one per line; NULL: the names */
  uint64_t seed;
  int64_t images[NITI_SPLITS];        /* of each split; 0: none, or an older checkpoint without validation images */
  char sha256[NITI_SPLITS][65];       /* of each split's files */
  char names_sha256[NITI_SPLITS][65]; /* of their names; "": an older checkpoint without them */
} NitiRunInputs;

/* How long a rank took for its shares of batches. */
typedef struct NitiPace {
  int64_t busy; /* nanoseconds, without what it waited for others */
  int64_t images;
} NitiPace;

typedef struct NitiRun {
  NitiTrainOptions options;
  NitiRunInputs inputs;  /* its state: what it began with */
  NitiRunInputs present; /* the data set as it is: an image folder may have lost test images since */
  NitiRecipe *recipe;    /* its own, resolved for the data set */
  char *data_path, *class_names, *class_labels;
  bool resumed, extended; /* extended: to more epochs, by this process */
  const char *extensions; /* "step 30: 3 to 8 epochs; ..."; NULL: none */
  char *extensions_owned;
  bool data_changed; /* resumed: image files have changed since the run began */
  NitiDataset *dataset;
  NitiBackend *backend;
  NitiNetwork *net;
  NitiFeed *feed;
  NitiAverage *average;                     /* NULL: the recipe has none */
  NitiMirror *mirror;                       /* NULL: the recipe's evaluation does not flip */
  NitiLoader *train_loader, *scored_loader; /* the latter after epochs: validation, or where there is none test */
  NitiLoader *test_loader;                  /* at the end, where validation chooses the best epoch; else NULL */
  char tuning[NITI_TUNED_MAX];              /* of NitiRunFacts; "": none */
  NitiRunFolder *folder;
  NitiReport *report;
  NitiHealth *health;       /* made by the first step of this process */
  bool whole_epoch;         /* the epoch under way began in this process */
  int32_t scored;           /* images in the last batch scored */
  NitiMeasure *measure;     /* made by the first step that is measured */
  NitiScore measured;       /* the epoch's score at the last step that was measured */
  int32_t measured_epoch;   /* the epoch that it belongs to, from 1 */
  NitiConfusion *confusion; /* of the last pass after an epoch; NULL: nothing is measured, or too many classes */
  NitiSaver *saver;         /* made by the first save */
  int64_t steps_per_epoch, steps;
  int64_t step;       /* done */
  int64_t first_step; /* where this process began */
  int32_t epoch;      /* completed */
  int32_t save_every;
  int32_t test_every, test_limit; /* of NitiTrainOptions */
  bool complete;                  /* every step is done, tested and recorded */
  bool best_lost;                 /* the run has ended, and best.safetensors does not hold the best epoch's weights */
  bool lost;                      /* the network holds other weights than the run's, which could not be put back */
  bool on_validation;             /* the validation split chooses the best epoch */
  NitiScore train, validation, test, best, best_test;
  int64_t average_samples;
  NitiScore averaged, averaged_validation; /* the averaged weights' at the end, on the test and the validation split */
  int32_t best_epoch;
  int64_t images, nanoseconds;              /* trained by this process */
  int64_t epoch_images, epoch_nanoseconds;  /* of them, in the epoch under way */
  int64_t score_batches, score_nanoseconds; /* scored by this process; epoch_scored: of them, since the epoch's last step */
  int64_t epoch_scored;
  int64_t saved_at, refreshed_at;
  NitiPace pace;    /* of this rank's steps since paces were compared */
  int64_t paced_at; /* when that was */
  bool slow_told;   /* a slow rank was named */
} NitiRun;

/* Opens the data set at data_path (NULL: the default), the loaders, the backend and the network for run->recipe, which receives
 * the data set's own statistics if it has none; sets run->inputs. A new run chooses its best epoch on validation images where
 * there are any; a resumed one as it did. The caller closes the run even after a failure. */
NitiStatus niti_run_open(NitiRun *run, const char *data_path);
/* Whether this process reads and writes the run's files and reports: it is rank 0, or by itself. */
static inline bool niti_run_leads(const NitiRun *run) { return niti_ranks_lead(run->options.ranks); }
/* All ranks together: every one ends with the same status (niti_ranks_agree). */
static inline NitiStatus niti_run_agree(const NitiRun *run, NitiStatus status) {
  return niti_ranks_agree(run->options.ranks, status);
}
/* The same, and *go_on is false on every rank if it was on any; *also, where it was on rank 0 and all go on, is true on every
 * rank. also NULL: nothing. */
NitiStatus niti_run_vote(const NitiRun *run, NitiStatus status, bool *go_on, bool *also);

/* Closes everything that is open. */
NitiStatus niti_run_close(NitiRun *run);

/* Steps are measured every options.measure_every of an epoch, or once in a shorter epoch. Before a step: *out is what it is to
 * fill where its layers are looked into, else NULL: by default, every tenth measured step on a device with memory of its own.
 * After it, when it has been counted: writes the figures of a measured one to the events, and refreshes run->train. */
NitiStatus niti_run_measure_begin(NitiRun *run, NitiMeasure **out);
NitiStatus niti_run_measure_end(NitiRun *run, const NitiMeasure *measure);
/* Before a test; and after each of its batches, which the network has just evaluated. */
NitiStatus niti_run_confusion_begin(NitiRun *run);
NitiStatus niti_run_confusion_add(NitiRun *run, const NitiBatch *batch);

/* Saves the state as the folder's last checkpoint, and under the other names requested (NitiKeep). Copies the state now and
 * writes it on a background thread; the next save or niti_run_saved returns a failure to write it. */
NitiStatus niti_run_save(NitiRun *run, int keep);
/* Writes the network's weights, without any state, as the folder's averaged.safetensors. */
NitiStatus niti_run_save_averaged(const NitiRun *run);
/* Waits until the last save is written. */
NitiStatus niti_run_saved(NitiRun *run);
/* Loads best.safetensors, which the caller closes. *out NULL: there is no such file, it is damaged, or not what this run saved
 * after its best epoch; niti_error() says which. Fails where it is there and the system cannot read it, or memory ran out. */
NitiStatus niti_run_load_best(NitiCheckpoint **out, NitiRun *run);
/* Of a run restored from the checkpoint, before it saves anything: where that, or else the one before it, is the state after its
 * best epoch, and best.safetensors is missing, damaged or of an earlier epoch of the run, it becomes that now: *from is its
 * file's name, else NULL. Whatever else is there stays. Fails where the system cannot read one of them, for lack of memory, and
 * where it cannot be saved. */
NitiStatus niti_run_mend_best(const char **from, NitiRun *run, const NitiCheckpoint *checkpoint);
/* Of a run whose `last` is damaged, so that *checkpoint is `previous`: where best.safetensors is a later state of the same run,
 * *checkpoint becomes that one. Fails where the system cannot read it, and for lack of memory. */
NitiStatus niti_run_take_newer(bool *taken, NitiCheckpoint **checkpoint, const NitiRun *run);
/* Opens a run in the checkpoint's state; data_path NULL: the checkpoint's. A missing, unknown or malformed key or tensor is
 * NITI_ERROR_FORMAT with its name. */
NitiStatus niti_run_restore(NitiRun *run, const NitiCheckpoint *checkpoint, const char *data_path);

#endif

/* The best checkpoint of a run: whether it is what it should be, and what a crash left in its place. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "platform/path.h"
#include "train/run_state.h"

/* What it and the run must have in common, besides the step; the run may have been extended since, and image files changed. The
 * first ones are those of any of the run's checkpoints. */
static const char *const common[] = {"seed", "train_set_images", "best_epoch", "best_correct", "best_images", "best_loss_sum"};
enum { COMMON = sizeof common / sizeof *common, COMMON_TO_ALL = 2 };

/* The step that ends the best epoch; max_steps may end the run's last epoch before its end. */
static int64_t best_step(const NitiRun *run) {
  const int64_t all = run->steps_per_epoch * run->best_epoch;
  return all < run->steps ? all : run->steps;
}

static NitiStatus check_best(const NitiRun *run, const NitiCheckpoint *best) {
  const char *source = niti_checkpoint_source(best);
  const int64_t step = best_step(run);
  NitiRun other = {0};
  NITI_TRY(niti_run_state_load(&other, best));
  NITI_TRY(niti_run_state_compare(run, &other, common, COMMON, source));
  if (other.step == step) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT,
                   "%s: __metadata__: 'step' is %" PRId64 " (expected %" PRId64 ", the end of epoch %" PRId32 ")", source,
                   other.step, step, run->best_epoch);
}

static const char best_name[] = "best.safetensors";

/* *out NULL: there is no such file, or it is no checkpoint. */
static NitiStatus load_file(NitiCheckpoint **out, const NitiRun *run) {
  char *path;
  bool there = false;
  *out = NULL;
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), best_name));
  const NitiStatus status = niti_checkpoint_load(out, path);
  free(path);
  if (status == NITI_ERROR_FILE) NITI_TRY(niti_path_has_file(&there, niti_run_folder_path(run->folder), best_name));
  return there || status == NITI_ERROR_MEMORY ? status : NITI_OK;
}

NitiStatus niti_run_load_best(NitiCheckpoint **out, NitiRun *run) {
  *out = NULL;
  NITI_TRY(niti_run_saved(run)); /* it may still be being written */
  NITI_TRY(load_file(out, run));
  if (!*out) return NITI_OK;
  const NitiStatus status = check_best(run, *out);
  if (status == NITI_OK) return NITI_OK;
  niti_checkpoint_close(*out);
  *out = NULL;
  return status == NITI_ERROR_MEMORY ? status : NITI_OK;
}

/* Whether it is a checkpoint of the run, as far as can be told, but not after the best epoch. */
static bool is_outdated(const NitiRun *run, const NitiCheckpoint *best, const NitiCheckpoint *checkpoint) {
  NitiRun other = {0};
  if (check_best(run, best) == NITI_OK || niti_run_state_load(&other, best) != NITI_OK) return false;
  return niti_run_state_compare(run, &other, common, COMMON_TO_ALL, "") == NITI_OK &&
         strcmp(other.inputs.model, niti_checkpoint_get(checkpoint, "model")) == 0;
}

/* Whether a crash may have left it so: missing, or as an earlier epoch left it. */
static NitiStatus is_left_over(bool *is, const NitiRun *run, const NitiCheckpoint *checkpoint) {
  NitiCheckpoint *best;
  bool there;
  NITI_TRY(load_file(&best, run));
  *is = best && is_outdated(run, best, checkpoint);
  const bool loaded = best != NULL;
  niti_checkpoint_close(best);
  if (loaded) return NITI_OK;
  NITI_TRY(niti_path_has_entry(&there, niti_run_folder_path(run->folder), best_name));
  *is = !there;
  return NITI_OK;
}

NitiStatus niti_run_mend_best(bool *mended, NitiRun *run, const NitiCheckpoint *checkpoint) {
  char *path;
  *mended = false;
  if (run->best_epoch == 0 || run->step != best_step(run)) return NITI_OK;
  NITI_TRY(is_left_over(mended, run, checkpoint));
  if (!*mended) return NITI_OK;
  NITI_TRY(niti_run_folder_hold(run->folder));
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), best_name));
  const NitiStatus status = niti_checkpoint_save(checkpoint, path);
  free(path);
  return status;
}

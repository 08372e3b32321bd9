/* The best checkpoint of a run: whether it is what it should be, and what a crash left in its place. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "platform/path.h"
#include "train/run_state.h"

/* What it and the run must have in common, besides the step; the run may have been extended since, and image files changed. */
static const char *const common[] = {"seed", "train_set_images", "best_epoch", "best_correct", "best_images", "best_loss_sum"};
enum { COMMON = sizeof common / sizeof *common };

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

typedef enum Found {
  FOUND,
  NONE,    /* there is no entry of that name */
  DAMAGED, /* a file that is no sound checkpoint */
  OTHER,   /* a folder or the like, or a checkpoint of a later version */
} Found;

/* *out NULL unless FOUND; niti_error() says why. Fails where a file is there and the system cannot read it, or memory ran out. */
static NitiStatus find_file(Found *found, NitiCheckpoint **out, const NitiRun *run, const char *name) {
  char *path;
  bool file = true, there = true;
  *out = NULL;
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), name));
  const NitiStatus status = niti_checkpoint_load(out, path);
  free(path);
  if (status == NITI_ERROR_MEMORY) return status;
  if (status == NITI_ERROR_FILE) {
    NITI_TRY(niti_path_has_file(&file, niti_run_folder_path(run->folder), name));
    NITI_TRY(niti_path_has_entry(&there, niti_run_folder_path(run->folder), name));
    if (file && there) return status;
  }
  *found = status == NITI_OK ? FOUND : !there ? NONE : status == NITI_ERROR_FORMAT ? DAMAGED : OTHER;
  return NITI_OK;
}

NitiStatus niti_run_load_best(NitiCheckpoint **out, NitiRun *run) {
  Found found;
  *out = NULL;
  NITI_TRY(niti_run_saved(run)); /* it may still be being written */
  NITI_TRY(find_file(&found, out, run, best_name));
  if (!*out) return NITI_OK;
  const NitiStatus status = check_best(run, *out);
  if (status == NITI_OK) return NITI_OK;
  niti_checkpoint_close(*out);
  *out = NULL;
  return status == NITI_ERROR_MEMORY ? status : NITI_OK;
}

/* ---- what a crash or a failed save has left ---- */

/* Whether two resolved recipes are of one run, which may have been extended: all lines but that of `epochs` are the same. */
static bool same_recipe(const char *a, const char *b) {
  static const char epochs[] = "epochs:";
  while (*a && *b) {
    const size_t left = strcspn(a, "\n"), right = strcspn(b, "\n");
    const bool both = strncmp(a, epochs, sizeof epochs - 1) == 0 && strncmp(b, epochs, sizeof epochs - 1) == 0;
    if (!both && (left != right || memcmp(a, b, left) != 0)) return false;
    a += left + (a[left] == '\n');
    b += right + (b[right] == '\n');
  }
  return *a == *b;
}

static bool same_value(const char *key, const NitiCheckpoint *a, const NitiCheckpoint *b) {
  const char *left = niti_checkpoint_get(a, key), *right = niti_checkpoint_get(b, key);
  return left == right || (left && right && strcmp(left, right) == 0);
}

/* Whether both are of one run, as far as files can tell. content: also of the same content of its images, which may change on the
 * way in image folders. */
static bool same_run(const NitiCheckpoint *a, const NitiCheckpoint *b, bool content) {
  static const char *const keys[] = {"model", "seed", "train_set_images", "train_set_names_sha256",
                                     "validation_set_names_sha256"};
  static const char *const contents[] = {"train_set_sha256", "validation_set_sha256", "test_set_sha256"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
    if (!same_value(keys[i], a, b)) return false;
  }
  for (size_t i = 0; content && i < sizeof contents / sizeof *contents; ++i) {
    if (!same_value(contents[i], a, b)) return false;
  }
  const char *left = niti_checkpoint_get(a, "recipe"), *right = niti_checkpoint_get(b, "recipe");
  return left && right && same_recipe(left, right);
}

static int64_t step_of(const NitiCheckpoint *checkpoint) {
  NitiRun other = {0};
  return niti_run_state_load(&other, checkpoint) == NITI_OK ? other.step : -1;
}

static bool same_content(const NitiRun *run) { return !niti_dataset_is_folder(run->dataset); }

/* Whether best.safetensors is missing, damaged, or of an earlier epoch of the run, as a crash may have left it. Where something
 * else is in its place, a run that trains on fails while it still has what belongs there. */
static NitiStatus is_left_over(bool *is, const NitiRun *run, const NitiCheckpoint *checkpoint) {
  NitiCheckpoint *best;
  Found found;
  NITI_TRY(find_file(&found, &best, run, best_name));
  *is = found == NONE || found == DAMAGED;
  if (found == OTHER && !run->complete && run->step == best_step(run))
    return niti_fail(NITI_ERROR_FILE,
                     "%s; remove what is there: the run has the weights of epoch %" PRId32 ", the best, to put there",
                     niti_error(), run->best_epoch);
  if (found != FOUND) return NITI_OK;
  const int64_t step = step_of(best);
  *is = step >= 0 && step < best_step(run) && same_run(best, checkpoint, same_content(run));
  niti_checkpoint_close(best);
  return NITI_OK;
}

static NitiStatus make_best(const NitiRun *run, const NitiCheckpoint *checkpoint) {
  char *path;
  NITI_TRY(niti_run_folder_hold(run->folder));
  NITI_TRY(niti_path_join(&path, niti_run_folder_path(run->folder), best_name));
  const NitiStatus status = niti_checkpoint_save(checkpoint, path);
  free(path);
  return status;
}

NitiStatus niti_run_mend_best(const char **from, NitiRun *run, const NitiCheckpoint *checkpoint) {
  static const char previous_name[] = "previous.safetensors";
  NitiCheckpoint *previous;
  Found found;
  bool left_over;
  *from = NULL;
  if (run->best_epoch == 0) return NITI_OK;
  NITI_TRY(is_left_over(&left_over, run, checkpoint));
  if (!left_over) return NITI_OK;
  if (run->step == best_step(run)) {
    NITI_TRY(make_best(run, checkpoint));
    *from = strrchr(niti_checkpoint_source(checkpoint), '/') + 1; /* it was loaded from the run's folder */
    return NITI_OK;
  }
  NITI_TRY(find_file(&found, &previous, run, previous_name));
  if (found != FOUND) return NITI_OK;
  NitiStatus status = NITI_OK;
  if (same_run(previous, checkpoint, same_content(run)) && check_best(run, previous) == NITI_OK) {
    status = make_best(run, previous);
    *from = previous_name;
  }
  niti_checkpoint_close(previous);
  return status;
}

NitiStatus niti_run_take_newer(bool *taken, NitiCheckpoint **checkpoint, const NitiRun *run) {
  NitiCheckpoint *best;
  Found found;
  *taken = false;
  NITI_TRY(find_file(&found, &best, run, best_name));
  if (found != FOUND) return NITI_OK;
  *taken = same_run(best, *checkpoint, true) && step_of(best) > step_of(*checkpoint);
  NitiCheckpoint *other = *taken ? *checkpoint : best;
  if (*taken) *checkpoint = best;
  niti_checkpoint_close(other);
  return NITI_OK;
}

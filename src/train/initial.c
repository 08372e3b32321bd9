#include "train/initial.h"

#include "train/locate.h"
#include "train/snapshot.h"
#include "train/tell.h"

static bool wants_weights(void *context) {
  const NitiRun *run = context;
  const NitiProgress progress = {.kind = NITI_PROGRESS_DATA, .text = "reading weights", .epoch = run->epoch + 1};
  return !run->options.progress || run->options.progress(run->options.context, &progress);
}

/* Loads what --init names. Reads only the weights of a checkpoint, so one edited by other tools is accepted. */
static NitiStatus load_init(NitiCheckpoint **out, NitiRun *run) {
  NitiLocation location;
  bool intact = true;
  NitiStatus status = niti_locate(&location, run->options.init);
  if (status == NITI_OK && location.kind == NITI_LOCATED_CHECKPOINT)
    status = niti_checkpoint_load_weights(out, &intact, location.path);
  else if (status == NITI_OK)
    status = niti_location_weights(out, &location);
  if (status == NITI_OK && !intact)
    niti_run_warn(run, "%s: modified since niti wrote it, or damaged; using its weights unchanged", location.path);
  if (status == NITI_OK && location.kind != NITI_LOCATED_CHECKPOINT)
    niti_run_warn(run, "%s: not trained: its weights are initialised from its seed", location.path);
  niti_location_close(&location);
  return status;
}

static NitiStatus take_init(NitiRun *run, const NitiCheckpoint *checkpoint) {
  const int32_t count = run->net->weight_count;
  int32_t taken = 0;
  for (int32_t i = 0; i < count; ++i) {
    bool found = false;
    NITI_TRY(niti_snapshot_restore_one(&found, run->net, i, checkpoint, run->options.init));
    if (found) {
      ++taken;
    } else {
      niti_run_note(run, "initialised afresh: %s (no tensor of its name and shape in %s)", niti_network_weight(run->net, i).name,
                    run->options.init);
    }
  }
  if (taken == 0) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: no tensor matches one of model '%s' by name and shape", run->options.init,
                     run->recipe->model->name);
  }
  niti_run_note(run, "%d of %d tensors of weights taken from %s", taken, count, run->options.init);
  return NITI_OK;
}

NitiStatus niti_run_start_weights(NitiRun *run) {
  NitiCheckpoint *checkpoint = NULL;
  NITI_TRY(niti_network_init(run->net, run->recipe->seed));
  if (!run->options.init || !niti_run_leads(run)) return NITI_OK;
  const NitiFileWatch watch = {wants_weights, run};
  niti_file_watch(&watch);
  const NitiStatus loaded = load_init(&checkpoint, run);
  niti_file_watch(NULL);
  NITI_TRY(loaded);
  const NitiStatus status = take_init(run, checkpoint);
  niti_checkpoint_close(checkpoint);
  return status;
}

#include "train/tell.h"

#include <stdarg.h>

#include "platform/text.h"
#include "train/scoring.h"

bool niti_run_tell(const NitiRun *run, NitiProgress *progress) {
  if (!run->options.progress) return true;
  const int64_t into = run->step - run->epoch * run->steps_per_epoch;
  if (progress->kind != NITI_PROGRESS_TEST) {
    progress->batch = into;
    progress->batches = run->steps_per_epoch;
  }
  progress->epochs = run->recipe ? run->recipe->epochs : 0;
  progress->step = run->step;
  progress->steps = run->steps;
  progress->train = run->train;
  progress->images = run->images;
  progress->steps_here = run->step - run->first_step;
  progress->nanoseconds = run->nanoseconds;
  progress->epoch_left = progress->run_left = -1;
  if (run->scored_loader) niti_run_expect(run, &progress->epoch_left, &progress->run_left);
  return run->options.progress(run->options.context, progress);
}

void niti_run_tell_text(const NitiRun *run, NitiProgressKind kind, const char *format, ...) {
  char text[1280];
  va_list args;
  va_start(args, format);
  niti_text_format(text, sizeof text, format, args);
  va_end(args);
  NitiProgress progress = {.kind = kind, .text = text, .epoch = run->epoch + 1};
  (void)niti_run_tell(run, &progress);
}

/* Gathers a run's facts from what it has opened. */
#include "train/introduce.h"

#include <string.h>

#include "program/bounds.h"
#include "train/scoring.h"

static int64_t count_multiply_adds(const NitiProgram *program) {
  int64_t count = 0;
  for (int32_t i = 0; i < program->operation_count; ++i) {
    const NitiOperation *operation = &program->operations[i];
    if (operation->opcode == NITI_OP_CONV_FORWARD) count += niti_multiply_adds(operation);
  }
  return count;
}

static NitiDataFacts data_facts(const NitiRun *run) {
  NitiDataFacts facts = {.kind = niti_dataset_kind(run->dataset),
                         .path = run->data_path,
                         .classes = niti_dataset_classes(run->dataset),
                         .train_images = run->present.images[NITI_TRAIN],
                         .test_images = run->present.images[NITI_TEST],
                         .validation_images = run->present.images[NITI_VALIDATION],
                         .run_path = run->data_path,
                         .of_run = true,
                         .scored = niti_run_scored_split(run)};
  memcpy(facts.train_sha256, run->present.sha256[NITI_TRAIN], sizeof facts.train_sha256);
  if (facts.test_images > 0) memcpy(facts.test_sha256, run->present.sha256[NITI_TEST], sizeof facts.test_sha256);
  memcpy(facts.validation_sha256, run->present.sha256[NITI_VALIDATION], sizeof facts.validation_sha256);
  return facts;
}

void niti_run_facts(NitiRunFacts *out, const NitiRun *run, const char *folder) {
  const NitiDescription *model = run->recipe->model;
  *out = (NitiRunFacts){.recipe = run->recipe->name,
                        .model = model->name,
                        .folder = folder,
                        .device = run->backend->ops->describe(run->backend),
                        .hardware = run->backend->ops->hardware(run->backend),
                        .input = {model->input.h, model->input.w, model->input.c},
                        .parameters = niti_program_parameters(run->net->program),
                        .multiply_adds = count_multiply_adds(run->net->program),
                        .batch = run->recipe->batch,
                        .epochs = run->recipe->epochs,
                        .steps_per_epoch = run->steps_per_epoch,
                        .seed = run->recipe->seed,
                        .test_every = run->test_every > 0 ? run->test_every : 1,
                        .scored_images = niti_loader_images(run->scored_loader),
                        .flip = run->recipe->test_flip,
                        .tuning = run->tuning[0] ? run->tuning : NULL,
                        .data = data_facts(run)};
}

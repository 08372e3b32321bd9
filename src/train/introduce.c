/* Gathers a run's facts from what it has opened, and reads all its images for a dry run. */
#include "train/introduce.h"

#include <string.h>

#include "program/bounds.h"

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
                         .train_images = run->inputs.images[NITI_TRAIN],
                         .test_images = run->inputs.images[NITI_TEST],
                         .run_path = run->data_path,
                         .of_run = true};
  memcpy(facts.train_sha256, run->inputs.sha256[NITI_TRAIN], sizeof facts.train_sha256);
  memcpy(facts.test_sha256, run->inputs.sha256[NITI_TEST], sizeof facts.test_sha256);
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
                        .data = data_facts(run)};
}

NitiStatus niti_run_read_images(NitiRun *run, bool (*tell)(const NitiRun *run, int64_t done, int64_t batches)) {
  NitiLoader *loaders[] = {run->train_loader, run->test_loader};
  const int64_t batches = niti_loader_steps(loaders[0]) + niti_loader_steps(loaders[1]);
  int64_t done = 0;
  for (int split = 0; split < 2; ++split) {
    if (niti_dataset_images(run->dataset, (NitiSplit)split)) continue; /* read and checked already */
    NITI_TRY(niti_loader_start(loaders[split], 0, 0));
    for (NitiBatch batch = {.count = 1}; batch.count > 0;) {
      NITI_TRY(niti_loader_next(loaders[split], &batch));
      if (!tell(run, ++done, batches)) return niti_fail(NITI_INTERRUPTED, "interrupted; nothing was written");
    }
  }
  return NITI_OK;
}

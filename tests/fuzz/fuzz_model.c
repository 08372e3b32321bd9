/* A text as a model: parsed, and lowered for training and for inference. Its own text is the same model. */
#include "fuzz.h"
#include "model/lower.h"

static void lower(const NitiDescription *description, bool training) {
  const NitiLowerOptions options = {.batch = 8,
                                    .training = training,
                                    .round_activation = NITI_NEAREST,
                                    .round_delta = NITI_STOCHASTIC,
                                    .loss = NITI_LOSS_SOFTMAX};
  NitiProgram *program;
  if (fuzz_status(niti_lower(&program, description, &options)) == NITI_OK) niti_program_close(program);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  NitiDescription *description, *again;
  char *text = fuzz_text(data, size);
  if (fuzz_status(niti_description_parse(&description, text, "fuzz", NULL)) == NITI_OK) {
    lower(description, true);
    lower(description, false);
    FUZZ_CHECK(niti_description_parse(&again, description->text, "again", NULL) == NITI_OK);
    FUZZ_CHECK(strcmp(description->text, again->text) == 0);
    FUZZ_CHECK(description->node_count == again->node_count);
    niti_description_close(again);
    niti_description_close(description);
  }
  free(text);
  return 0;
}

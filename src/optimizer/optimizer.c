/* The table of optimisers. */
#include "optimizer/optimizer.h"

#include <string.h>

static const NitiOptimizer *const optimizers[] = {&niti_optimizer_niti};
static const char *const names[] = {"niti", NULL};

const char *const *niti_optimizer_names(void) { return names; }

const NitiOptimizer *niti_optimizer_find(const char *name) {
  for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; ++i) {
    if (strcmp(optimizers[i]->name, name) == 0) return optimizers[i];
  }
  return NULL;
}

/* The table of optimisers. */
#include "optimizer/optimizer.h"

#include <string.h>

#define LIST(name) &niti_optimizer_##name,
#define NAME(name) #name,
static const NitiOptimizer *const optimizers[] = {NITI_OPTIMIZERS(LIST)};
static const char *const names[] = {NITI_OPTIMIZERS(NAME) NULL};

const char *const *niti_optimizer_names(void) { return names; }

const NitiOptimizer *niti_optimizer_find(const char *name) {
  for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; ++i) {
    if (strcmp(optimizers[i]->name, name) == 0) return optimizers[i];
  }
  return NULL;
}

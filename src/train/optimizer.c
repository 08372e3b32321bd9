#include "train/optimizer.h"

void niti_optimizer_update(NitiNetwork *net, int mu) {
  for (int32_t i = 1; i <= net->plan->count; ++i) {
    NitiNode *node = &net->plan->nodes[i];
    if (node->gradient.data) net->backend->ops->update_niti(net->backend, &node->weight, &node->gradient, mu);
  }
}

/* Gradients -> weights. */
#ifndef NITI_TRAIN_OPTIMIZER_H
#define NITI_TRAIN_OPTIMIZER_H

#include "model/network.h"

/* The update `niti` of every weight tensor with learning rate mu. */
void niti_optimizer_update(NitiNetwork *net, int mu);

#endif

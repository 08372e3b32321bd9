/* Between a network and a checkpoint. */
#ifndef NITI_TRAIN_SNAPSHOT_H
#define NITI_TRAIN_SNAPSHOT_H

#include "io/checkpoint.h"
#include "model/network.h"

/* Copies every weight tensor into the checkpoint, as LAYER.weight, and every state tensor of the optimiser. Fails where the device has failed at any time before: then the
 * checkpoint must not be saved. */
NitiStatus niti_snapshot_take(NitiCheckpoint *checkpoint, const NitiNetwork *net);
/* Sets every weight and state tensor of the network; one that is missing or of another shape fails with its name. `source` is for messages. */
NitiStatus niti_snapshot_restore(NitiNetwork *net, const NitiCheckpoint *checkpoint, const char *source);
/* Fails with the name of a tensor that the network does not have. All that it has were restored. */
NitiStatus niti_snapshot_check(const NitiNetwork *net, const NitiCheckpoint *checkpoint);
/* Whether the checkpoint has weight i of the network, in name and shape; sets it if so. */
bool niti_snapshot_restore_one(NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint);
/* The hash of the network's weights. */
NitiStatus niti_snapshot_hash(const NitiNetwork *net, char text[65]);

#endif

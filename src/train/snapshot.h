/* Copies tensors between a network and a checkpoint. */
#ifndef NITI_TRAIN_SNAPSHOT_H
#define NITI_TRAIN_SNAPSHOT_H

#include "io/checkpoint.h"
#include "model/network.h"
#include "train/average.h"

/* Copies every weight tensor into the checkpoint, as LAYER.weight, and every state tensor of the optimiser, and sets the value
 * `arithmetic`. Fails if the device has failed at any time before; the checkpoint must then not be saved. Fails too where an
 * exponent is one that no file may have: nothing that was trained so is worth keeping. */
NitiStatus niti_snapshot_take(NitiCheckpoint *checkpoint, const NitiNetwork *net);
/* The same without the optimiser's state. */
NitiStatus niti_snapshot_take_weights(NitiCheckpoint *checkpoint, const NitiNetwork *net);
/* Sets every weight and state tensor of the network; fails with the name of one that is missing or of another shape, or with the
 * first element that training cannot have left (docs/arithmetic.md, "What a checkpoint holds"). `source` is for messages. */
NitiStatus niti_snapshot_restore(NitiNetwork *net, const NitiCheckpoint *checkpoint, const char *source);
/* Fails with the name of a checkpoint tensor that neither the network nor the average (NULL: none) has. All others were restored.
 */
NitiStatus niti_snapshot_check(const NitiNetwork *net, const NitiAverage *average, const NitiCheckpoint *checkpoint);
/* Sets weight i of the network if the checkpoint has one of the same name and shape: *found. Fails as niti_snapshot_restore where
 * its elements or exponent are out of range. */
NitiStatus niti_snapshot_restore_one(bool *found, NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint,
                                     const char *source);
/* The hash of the network's weights. */
NitiStatus niti_snapshot_hash(const NitiNetwork *net, char text[65]);

#endif

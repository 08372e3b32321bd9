/* What niti.h offers by name, for callers that have resolved the name already. */
#ifndef NITI_TRAIN_INFERENCE_H
#define NITI_TRAIN_INFERENCE_H

#include "train/confusion.h"
#include "train/locate.h"

/* niti_model_open and niti_checkpoint_file_hash of what niti_locate has found. */
NitiStatus niti_model_open_at(NitiModel **out, const NitiLocation *location, const NitiDevice *device);
NitiStatus niti_location_hash(const NitiLocation *location, char text[65]);

/* What niti_model_flip set last, or the recipe. */
bool niti_model_flips(const NitiModel *model);

/* What the network that was scored last takes from a tuning file (niti_executable_tuned); NULL: nothing. */
const char *niti_model_tuning(const NitiModel *model);

/* What niti_model_confusion gives the counts of, with the classes' display names. */
const NitiConfusion *niti_model_confusion_named(const NitiModel *model);

#endif

/* The way of a batch from the loader into the network: raw pixels and picks -> the input tensor; labels to the backend. */
#ifndef NITI_TRAIN_FEED_H
#define NITI_TRAIN_FEED_H

#include "data/loader.h"
#include "model/network.h"

typedef struct NitiFeed NitiFeed;

/* For batches of at most `batch` images. mean, std: the recipe's, in millionths, one a channel of `input`. */
NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, NitiShape input, int32_t batch, const int32_t *mean,
                          const int32_t *std);
void niti_feed_close(NitiFeed *feed);
/* Writes net->input and sets the network's batch. A resident batch's images are copied to the backend once, if at all. */
NitiStatus niti_feed_batch(NitiFeed *feed, NitiNetwork *net, const NitiBatch *batch);
/* This batch's labels, in backend memory. */
const int32_t *niti_feed_labels(const NitiFeed *feed);

#endif

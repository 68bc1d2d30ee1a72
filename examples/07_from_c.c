/* Three peers driven from C in one process: only payload bytes pass between them, and their replicas stay equal. Each
 * sees noise of its own around one target; one of them loses a payload now and then. */

#include <thinwire/c.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { peers = 3, rows = 48, cols = 64, rounds = 400 };

typedef struct peer {
    float matrix[rows * cols], bias[cols];
    float matrix_gradient[rows * cols], bias_gradient[cols];
    thinwire_demo* optimizer;
    uint32_t random;
} peer;

static void need(thinwire_status status) {
    if (status == THINWIRE_OK) return;
    fprintf(stderr, "%s\n", thinwire_last_error());
    exit(1);
}

/* -1..1, from a linear congruential generator of the peer's own. */
static float noise(peer* p) {
    p->random = p->random * 1664525U + 1013904223U;
    return (float)(p->random >> 8) / 8388608.0F - 1.0F;
}

static void create(peer* p, uint32_t seed) {
    const int64_t matrix_shape[] = {rows, cols}, bias_shape[] = {cols};
    thinwire_tensor tensors[2];
    thinwire_options options;
    thinwire_group biases;
    memset(p, 0, sizeof *p);
    memset(tensors, 0, sizeof tensors);
    p->random = seed;

    tensors[0].name = "layer.weight";
    tensors[0].shape = matrix_shape;
    tensors[0].rank = 2;
    tensors[0].values = p->matrix;
    tensors[0].count = rows * cols;
    tensors[1].name = "layer.bias";
    tensors[1].shape = bias_shape;
    tensors[1].rank = 1;
    tensors[1].values = p->bias;
    tensors[1].count = cols;

    need(thinwire_group_init(&biases, sizeof biases));
    biases.suffix = ".bias";
    biases.learning_rate = 0.5F;
    need(thinwire_options_init(&options, sizeof options));
    options.learning_rate = 0.01F;
    options.momentum_decay = 0.9F;
    options.k = 64;
    options.values = THINWIRE_VALUES_BF16;
    options.groups = &biases;
    options.group_count = 1;
    need(thinwire_demo_create(tensors, 2, &options, &p->optimizer));
}

/* Of half the squared distance to the target 1, seen through noise. */
static float loss_and_gradients(peer* p) {
    float loss = 0.0F;
    int i;
    for (i = 0; i < rows * cols; ++i) {
        p->matrix_gradient[i] = p->matrix[i] - 1.0F + 0.5F * noise(p);
        loss += 0.5F * (p->matrix[i] - 1.0F) * (p->matrix[i] - 1.0F);
    }
    for (i = 0; i < cols; ++i) p->bias_gradient[i] = p->bias[i] - 1.0F + 0.5F * noise(p);
    return loss;
}

int main(void) {
    static peer all[peers];
    thinwire_payload payloads[peers];
    thinwire_report report;
    uint8_t digest[peers][32];
    float first = 0.0F, last = 0.0F;
    uint64_t bytes = 0, round;
    uint32_t i;
    for (i = 0; i < peers; ++i) create(&all[i], 100 + i);

    for (round = 0; round < rounds; ++round) {
        /* A payload of the third peer is lost every tenth round: it stays in that peer's momentum. */
        const size_t arrived = round % 10 == 9 ? peers - 1 : peers;
        for (i = 0; i < peers; ++i) {
            thinwire_floats gradients[2];
            last = loss_and_gradients(&all[i]);
            gradients[0].data = all[i].matrix_gradient;
            gradients[0].count = rows * cols;
            gradients[1].data = all[i].bias_gradient;
            gradients[1].count = cols;
            payloads[i].peer = i;
            need(thinwire_begin_step(all[i].optimizer, i, gradients, 2, &payloads[i].bytes));
            bytes += payloads[i].bytes.size;
        }
        if (round == 0) first = last;
        for (i = 0; i < peers; ++i) {
            need(thinwire_validate(all[i].optimizer, &payloads[0], round));
            need(thinwire_end_step(all[i].optimizer, round, payloads, arrived, &report));
            if (report.contributors != arrived || report.disagreeing != 0) {
                fprintf(stderr, "round %lu: %u contributors, %u of other weights\n", (unsigned long)round,
                        (unsigned)report.contributors, (unsigned)report.disagreeing);
                return 1;
            }
        }
    }

    for (i = 0; i < peers; ++i) need(thinwire_replica_digest(all[i].optimizer, digest[i]));
    for (i = 1; i < peers; ++i)
        if (memcmp(digest[0], digest[i], sizeof digest[0]) != 0) {
            fprintf(stderr, "replica %u differs\n", (unsigned)i);
            return 1;
        }
    printf("thinwire %s: loss %.1f -> %.1f, %lu bytes a payload, replicas equal\n", thinwire_version(), (double)first,
           (double)last, (unsigned long)(bytes / (rounds * peers)));
    for (i = 0; i < peers; ++i) thinwire_demo_destroy(all[i].optimizer);
    return last < first / 10.0F ? 0 : 1;
}

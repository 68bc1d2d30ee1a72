#ifndef THINWIRE_C_H
#define THINWIRE_C_H

/*
 * thinwire for programs in C, and in any language that can call C: the DeMo optimizer of one peer over weights that the
 * caller owns. Bytes go in and out; how they travel between peers is the caller's affair. Link thinwire::c.
 *
 *     thinwire_options options;
 *     thinwire_options_init(&options, sizeof options);
 *     thinwire_demo* peer = NULL;
 *     thinwire_demo_create(tensors, count, &options, &peer);
 *     for (each round) {
 *         thinwire_begin_step(peer, my_id, gradients, count, &payload);   -> send payload, receive those of the others
 *         thinwire_end_step(peer, round, payloads, payload_count, NULL);  the same list in the same order on every peer
 *     }
 *     thinwire_demo_destroy(peer);
 *
 * Errors: every function that can fail returns a thinwire_status. Unless it is THINWIRE_OK, thinwire_last_error() says
 * in one line what was wrong with which value and what was expected, and nothing has changed. No exception leaves the
 * library; it never prints and never ends the process.
 *
 * Threads: different handles may be used at the same time; one handle by one thread at a time. thinwire_last_error()
 * is about the calling thread. A handle with options.threads above 1 has threads of its own, that work within calls
 * only.
 *
 * Replicas stay equal bit for bit, whatever machine, compiler or language drives them, as long as all peers begin with
 * equal weights and apply the same payloads in the same order.
 *
 * Before version 1.0 a minor version may change this interface. Characters are UTF-8 and copied.
 */

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(THINWIRE_C_BUILDS)
#define THINWIRE_C_API __declspec(dllexport)
#elif defined(_WIN32) && defined(THINWIRE_C_SHARED)
#define THINWIRE_C_API __declspec(dllimport)
#elif defined(__GNUC__)
#define THINWIRE_C_API __attribute__((visibility("default")))
#else
#define THINWIRE_C_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Why a call failed. The numbers do not change. */
typedef enum thinwire_status {
    THINWIRE_OK = 0,
    THINWIRE_INVALID = 1, /* an argument: null, out of range, of the wrong size, not finite; or a call out of turn */
    THINWIRE_REFUSED =
        2, /* foreign bytes: a payload or a saved state that is damaged, or of other tensors or options */
    THINWIRE_NO_MEMORY = 3, /* or no more threads */
    THINWIRE_INTERNAL = 4   /* a fault of the library: please report it */
} thinwire_status;

/* How a dimension is cut whose largest divisor is below half of `chunk`. */
typedef enum thinwire_cut {
    THINWIRE_CUT_REMAINDER = 0, /* into sides of `chunk` and, at the end, one of what remains */
    THINWIRE_CUT_DIVISORS = 1   /* into sides of that divisor, however small, as published */
} thinwire_cut;

/* How the value of a coefficient travels. */
typedef enum thinwire_values {
    THINWIRE_VALUES_F32 = 0,  /* as published */
    THINWIRE_VALUES_SIGN = 1, /* one bit */
    THINWIRE_VALUES_BF16 = 2,
    THINWIRE_VALUES_Q4 = 3, /* four bits and a scale a chunk */
    THINWIRE_VALUES_Q2 = 4  /* two bits and a scale a chunk */
} thinwire_values;

/* The transform of a chunk. */
typedef enum thinwire_basis {
    THINWIRE_BASIS_DCT = 0, /* as published */
    THINWIRE_BASIS_HADAMARD = 1,
    THINWIRE_BASIS_RANDOM = 2,           /* drawn from basis_seed */
    THINWIRE_BASIS_IDENTITY = 3,         /* none */
    THINWIRE_BASIS_RANDOM_EACH_ROUND = 5 /* drawn anew for every round and tensor */
} thinwire_basis;

/* How the mean of what was sent becomes a direction. */
typedef enum thinwire_rule {
    THINWIRE_RULE_INHERIT = 0, /* in a group: that of the options */
    THINWIRE_RULE_SIGNUM = 1,  /* sign, as published */
    THINWIRE_RULE_SGD = 2,     /* the mean itself */
    THINWIRE_RULE_MUON = 3     /* orthogonalised; tensors without two sides above 1: a quarter of the sign */
} thinwire_rule;

/* What enters the momentum for a gradient g. */
typedef enum thinwire_gradient_scale {
    THINWIRE_GRADIENT_LEARNING_RATE = 0, /* learning_rate * g, as published */
    THINWIRE_GRADIENT_NONE = 1,          /* g */
    THINWIRE_GRADIENT_COMPLEMENT = 2     /* (1 - momentum_decay) * g */
} thinwire_gradient_scale;

/* What a payload weighs in the mean of a round. */
typedef enum thinwire_weights {
    THINWIRE_WEIGHTS_EQUAL = 0, /* all the same */
    THINWIRE_WEIGHTS_TOKENS = 1 /* the tokens that it states; 0 counts as 1 */
} thinwire_weights;

/* Settings of some tensors that differ from those of the others: those whose name begins with prefix and ends with
 * suffix (null or empty: any; not both), and those at the positions listed. A tensor belongs to the first group that
 * holds it; a group that holds none is refused. Begin with thinwire_group_init(). */
typedef struct thinwire_group {
    size_t struct_size; /* set by thinwire_group_init() */
    const char* prefix; /* null */
    const char* suffix; /* null */
    const size_t* positions;
    size_t position_count; /* 0 */
    float learning_rate;   /* 1: multiplies that of the options */
    float weight_decay;    /* used where own_weight_decay is not 0 */
    int32_t own_weight_decay;
    int32_t k;    /* 0: that of the options */
    int32_t rule; /* THINWIRE_RULE_INHERIT */
} thinwire_group;

/* Settings of a peer. Begin with thinwire_options_init(), which sets what the comments say. All peers of a run have
 * the same, but for learning_rate and weight_decay, which payloads state, and momentum_decay, alpha, gradient,
 * error_feedback, clip_norm and threads, which are each peer's own. */
typedef struct thinwire_options {
    size_t struct_size;      /* set by thinwire_options_init() */
    float learning_rate;     /* 1e-3; what is applied is the rate of the first accepted payload */
    float momentum_decay;    /* 0.999: beta, in [0, 1) */
    float alpha;             /* 1: part of what is sent that leaves the momentum, in (0, 1] */
    float weight_decay;      /* 0 */
    float clip_norm;         /* 0: never; else gradients are scaled to at most this norm */
    int32_t k;               /* 32: coefficients sent per chunk, 1..chunk^2 */
    int32_t chunk;           /* 64: side of a chunk, 1..256 */
    int32_t cut;             /* THINWIRE_CUT_REMAINDER */
    int32_t values;          /* THINWIRE_VALUES_F32 */
    int32_t error_feedback;  /* 0; else what the value code rounds away stays in the momentum */
    int32_t basis;           /* THINWIRE_BASIS_DCT */
    uint64_t basis_seed;     /* 0 */
    int32_t rule;            /* THINWIRE_RULE_SIGNUM */
    int32_t gradient;        /* THINWIRE_GRADIENT_LEARNING_RATE */
    int32_t weights;         /* THINWIRE_WEIGHTS_EQUAL */
    float contribution_clip; /* 0: never; else payloads are scaled to at most so many times the median norm, 1..2^20 */
    int32_t threads;         /* 1: that of the caller alone; at most 1024 */
    uint8_t run[32];         /* zeros: payloads of a run with another digest are refused */
    const thinwire_group* groups;
    size_t group_count; /* 0 */
} thinwire_options;

/* One trainable tensor, row-major. values must stay where it is until the handle is destroyed; end_step writes to it.
 */
typedef struct thinwire_tensor {
    const char* name;     /* for error texts and groups; null: "tensor" and its position */
    const int64_t* shape; /* rank sides, each at least 1; may be null when rank is 0 */
    size_t rank;          /* at most 8 */
    float* values;
    size_t count; /* of values: the product of the sides */
} thinwire_tensor;

/* Floats to read. */
typedef struct thinwire_floats {
    const float* data;
    size_t count;
} thinwire_floats;

/* Bytes to read. */
typedef struct thinwire_bytes {
    const uint8_t* data;
    size_t size;
} thinwire_bytes;

/* What one peer published for a round. */
typedef struct thinwire_payload {
    uint64_t peer;
    thinwire_bytes bytes;
} thinwire_payload;

/* What a step did. */
typedef struct thinwire_report {
    uint64_t round;          /* that was applied */
    uint64_t bytes_sent;     /* this peer's payload */
    uint64_t bytes_received; /* the payloads of others */
    uint64_t tokens;         /* that the payloads accepted state */
    uint32_t contributors;   /* payloads accepted */
    uint32_t rejected;       /* payloads that were skipped: malformed, of another run, round or peer, or made with other
                                options, whose replicas drift away from this one; thinwire_validate() says why */
    uint32_t agreeing;       /* contributors whose weights equal these */
    uint32_t disagreeing;    /* contributors whose weights differ: somebody's are wrong */
    int32_t own_included;    /* 0: this peer's payload stays in its momentum */
    float gradient_norm;     /* of the last begin_step, before clipping */
    float learning_rate;     /* that was applied */
} thinwire_report;

/* Bytes of memory that a handle holds. */
typedef struct thinwire_memory {
    uint64_t momentum;  /* the private momentum */
    uint64_t workspace; /* tables of the transform, working memory of the threads and of the update rule */
    uint64_t codec;     /* payloads: what was sent, what was received, working memory to encode and decode; and the
                           bytes of the last thinwire_save */
} thinwire_memory;

/* The optimizer of one peer. */
typedef struct thinwire_demo thinwire_demo;

/* "0.1.0". */
THINWIRE_C_API const char* thinwire_version(void);
/* One line on the last call of this thread that failed; "" when none has. Valid until the next that fails. */
THINWIRE_C_API const char* thinwire_last_error(void);

/* Sets the defaults. size: sizeof(thinwire_options), THINWIRE_INVALID for another. */
THINWIRE_C_API thinwire_status thinwire_options_init(thinwire_options* options, size_t size);
THINWIRE_C_API thinwire_status thinwire_group_init(thinwire_group* group, size_t size);

/* Makes an optimizer in round 0 with an empty momentum. options may be null: the defaults. *out becomes null when it
 * fails. Destroying null does nothing. */
THINWIRE_C_API thinwire_status thinwire_demo_create(const thinwire_tensor* tensors, size_t tensor_count,
                                                    const thinwire_options* options, thinwire_demo** out);
THINWIRE_C_API void thinwire_demo_destroy(thinwire_demo* demo);

/* Takes one gradient for each tensor into the momentum and gives the payload of the current round, which stays valid
 * until the next begin_step, restore or destroy. The gradients are read within the call only. THINWIRE_INVALID names
 * the tensor of a gradient that is not finite; also while the last payload still awaits its end_step. */
THINWIRE_C_API thinwire_status thinwire_begin_step(thinwire_demo* demo, uint64_t self, const thinwire_floats* gradients,
                                                   size_t gradient_count, thinwire_bytes* payload);
/* Applies what all peers agreed on for the current round: the same payloads in the same order. Those that are malformed
 * are skipped, as on every replica, and counted. The own payload, when it is not among them, stays in the momentum:
 * nothing is lost. Without a begin_step before, it replays a round that this peer missed. report may be null. */
THINWIRE_C_API thinwire_status thinwire_end_step(thinwire_demo* demo, uint64_t round, const thinwire_payload* payloads,
                                                 size_t payload_count, thinwire_report* report);
/* The payload in flight will not be committed: it stays in the momentum, and begin_step may be called again. */
THINWIRE_C_API thinwire_status thinwire_abandon(thinwire_demo* demo);
/* The payload that awaits its end_step; empty when there is none. After a restore it may be sent again. */
THINWIRE_C_API thinwire_status thinwire_in_flight(const thinwire_demo* demo, thinwire_bytes* payload);
/* Whether every replica will accept these bytes as that peer's payload for that round: THINWIRE_REFUSED and why if not.
 */
THINWIRE_C_API thinwire_status thinwire_validate(thinwire_demo* demo, const thinwire_payload* payload, uint64_t round);

/* The next round to contribute to or to apply. */
THINWIRE_C_API thinwire_status thinwire_round(const thinwire_demo* demo, uint64_t* round);
/* After loading weights as they were before that round. A payload in flight for an earlier one counts as committed. */
THINWIRE_C_API thinwire_status thinwire_set_round(thinwire_demo* demo, uint64_t round);
/* For the payloads to come. */
THINWIRE_C_API thinwire_status thinwire_set_learning_rate(thinwire_demo* demo, float learning_rate);
/* How many tokens the gradients of the payloads to come are means over, at most 2^24; 0, as at first: not stated. */
THINWIRE_C_API thinwire_status thinwire_set_tokens(thinwire_demo* demo, uint32_t tokens);
/* How many coefficients a chunk of the payloads to come sends at most: 1 to k of the options. Local to this peer. */
THINWIRE_C_API thinwire_status thinwire_set_k(thinwire_demo* demo, int32_t k);

/* SHA-256 of all weights: equal on all replicas that applied the same rounds. */
THINWIRE_C_API thinwire_status thinwire_replica_digest(const thinwire_demo* demo, uint8_t digest[32]);
/* What this peer alone knows: momentum and payload in flight. With the weights, the round, and what thinwire_set_k,
 * thinwire_set_tokens and thinwire_set_learning_rate said last, it goes on bit for bit. The bytes stay valid until the
 * next save or destroy. */
THINWIRE_C_API thinwire_status thinwire_save(thinwire_demo* demo, thinwire_bytes* state);
/* Reads what thinwire_save() wrote for the same tensors, options and run; THINWIRE_REFUSED, with nothing changed, for
 * anything else. Weights and round are the caller's to restore, before or after: a payload in flight for a round before
 * that of thinwire_set_round() counts as committed. */
THINWIRE_C_API thinwire_status thinwire_restore(thinwire_demo* demo, const uint8_t* state, size_t size);

THINWIRE_C_API thinwire_status thinwire_memory_bytes(const thinwire_demo* demo, thinwire_memory* memory);

#ifdef __cplusplus
}
#endif

#endif /* THINWIRE_C_H */

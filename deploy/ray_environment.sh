# Sourced on every node of a cluster before `ray start`: Ray reads these flags once, when a process starts.
# Names, values and reasons are in actors/ray_flags.py; a test holds the two together. Paths and ports that
# differ for two runtimes on one machine are left at Ray's defaults here: a cluster's nodes are its own.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="${PARLEY_HOME:-$HOME/.parley}/ray.token"
export RAY_ENABLE_AUTO_CONNECT=0
export RAY_USAGE_STATS_ENABLED=0
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
export RAY_process_group_cleanup_enabled=1
export RAY_prestart_worker_first_driver=0
export RAY_enable_worker_prestart=0
export RAY_num_workers_soft_limit=32
export RAY_idle_worker_killing_time_threshold_ms=3600000
export RAY_metrics_report_interval_ms=2000
export RAY_SERVE_ENABLE_HA_PROXY=1
export RAY_SERVE_HAPROXY_BALANCE_ALGORITHM='leastconn
    no option splice-request'
export RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=2
export RAY_SERVE_LOG_TO_STDERR=0
export RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD=0
export RAY_SERVE_USE_GRPC_BY_DEFAULT=1
export RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=268435456
export LANGGRAPH_STRICT_MSGPACK=true
export LITELLM_LOCAL_MODEL_COST_MAP=True

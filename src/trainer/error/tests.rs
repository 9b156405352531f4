use super::*;

#[test]
fn a_refusal_of_the_objective_is_not_libtorchs() {
    let lacks = ObjectiveError::Lacks {
        objective: "beit",
        what: "mask",
    };
    let error = TrainError::from(lacks);
    assert!(
        !error.to_string().contains("libtorch") && error.exit_code() == ExitCode::Internal,
        "{error}"
    );
    let word = ObjectiveError::Word {
        objective: "beit",
        word: 64,
        vocabulary: 64,
    };
    let error = TrainError::from(word);
    assert!(
        error.hint().is_some_and(|h| h.contains("codebook.path")) && error.exit_code() == ExitCode::Usage,
        "{error}"
    );
    let full = TrainError::from(ObjectiveError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB".into()));
    assert!(matches!(full, TrainError::OutOfMemory { .. }), "{full}");
}

#[test]
fn errors_keep_their_kind_and_only_bugs_are_called_bugs() {
    let oom = TrainError::of_device("CUDA out of memory.").unwrap();
    assert_eq!(oom.exit_code(), ExitCode::Io);
    let missing = TrainError::from(OptimError::Missing("ema.w".into()));
    assert!(
        missing.to_string().contains("ema.w") && !missing.to_string().contains("libtorch"),
        "{missing}"
    );
    let word = TrainError::from(ObjectiveError::Word {
        objective: "beit",
        word: 9,
        vocabulary: 8,
    });
    assert!(
        word.exit_code() == ExitCode::Usage && !word.to_string().contains("libtorch"),
        "{word}"
    );
    let full = CheckpointError::Io {
        path: "x".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    assert_eq!(TrainError::from(full).exit_code(), ExitCode::Io);
}

#[test]
fn libtorchs_words_are_understood() {
    let oom = [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes. Error code 12",
        "CUDA error: out of memory",
        "libtorch, linear: std::bad_alloc",
        "libtorch, linear: could not execute a primitive",
        "called `Result::unwrap()` on an `Err` value: Torch(\"could not create a primitive\")",
        "called `Result::unwrap()` on an `Err` value: Torch(\"<Error computing Error::what()>\")",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ];
    for text in oom {
        assert!(
            matches!(TrainError::of_device(text), Some(TrainError::OutOfMemory { .. })),
            "{text}"
        );
    }
    assert!(TrainError::of_device("could not create a primitive descriptor for a matmul primitive").is_none());
    for text in [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: uncorrectable ECC error encountered",
    ] {
        let error = TrainError::of_device(text).unwrap();
        assert!(
            matches!(error, TrainError::DeviceLost { .. }) && error.exit_code() == ExitCode::Stopped,
            "{text}"
        );
    }
    assert!(TrainError::of_device("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)").is_none());
}

#[test]
fn a_panic_for_memory_is_an_error_and_another_stays_a_panic() {
    let oom = device_panics_caught(|| -> Result<(), TrainError> {
        resume_unwind(Box::new("Torch(\"CUDA out of memory. Tried to allocate 20 MiB\")".to_owned()))
    });
    assert!(matches!(oom, Err(TrainError::OutOfMemory { .. })));
    let lost = device_panics_caught(|| -> Result<(), TrainError> {
        resume_unwind(Box::new("CUDA error: an illegal memory access was encountered".to_owned()))
    });
    assert!(matches!(lost, Err(TrainError::DeviceLost { .. })));
    let bug = catch_unwind(|| device_panics_caught(|| -> Result<(), TrainError> { resume_unwind(Box::new("index out of bounds")) }));
    assert!(bug.is_err());
}

/// Whoever came a second time for these would keep all waiting, or take the place of the process that came after it.
#[test]
fn what_ranks_found_out_when_they_met_is_not_told_again() {
    let taken = RanksError::Taken {
        rank: 1,
        other: "process 7 on host b".into(),
    };
    for known in [RanksError::Misfit(vec![]), taken] {
        let error = TrainError::from(known);
        assert!(error.is_of_meeting() && error.exit_code() == ExitCode::Usage, "{error}");
    }
    let own = RanksError::Usage {
        call: "all-reduce",
        reason: "no mean of Int64".into(),
    };
    assert!(!TrainError::from(own).is_of_meeting());
}
